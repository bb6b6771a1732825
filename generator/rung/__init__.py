import sys

__version__ = "0.1.0"

if sys.platform == "win32":  # Here, because the other modules import what only Unix has.
    sys.exit("rung: Rung needs Linux, macOS or WSL. Install WSL (wsl --install), and run it there.")
