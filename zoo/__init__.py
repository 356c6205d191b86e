"""The zoo: small models really pretrained on real text, and the bank of capabilities they are measured with."""
