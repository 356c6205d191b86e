"""The quickstart: two capabilities move from two architectures into a third, measured and shown."""
