"""`python -m ttserver`, where the installed program is not on the path."""

from ttserver.cli import main

main()
