"""The half of the adapter that talks to flytekit."""
