"""The half of the adapter that talks to flyte 2."""
