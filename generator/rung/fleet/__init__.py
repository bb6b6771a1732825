"""Many repos at once: the stage and version of each, and a pull request for each upgrade."""
