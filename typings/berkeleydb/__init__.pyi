"""Types of the Berkeley DB binding; the parts the project uses are in `berkeleydb.db`."""

from berkeleydb import db as db

__version__: str
error = db.DBError
