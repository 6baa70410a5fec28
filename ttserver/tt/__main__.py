"""`python -m ttserver.tt`, where the installed program is not on the path."""

from ttserver.tt.main import main

if __name__ == "__main__":
    main()
