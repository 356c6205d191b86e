"""Stage 4: the Adapter Generator, sources + probes + target -> an adapter."""
