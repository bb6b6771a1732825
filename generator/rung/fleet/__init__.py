"""Many repos at once: where each one stands, and a pull request for each upgrade."""
