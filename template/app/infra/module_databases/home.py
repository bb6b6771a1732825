# Rung's file: advancing to another stage may change it.
"""Where a module lives while its tables move: the SQL that the app and the move share."""

# The app's transactions take this lock shared, a cut takes it exclusively.
LOCK = "SELECT pg_advisory_xact_lock{}(hashtextextended('move_{} writers', 0))"
# Before a move there is no fence, and the module lives on the old side.
TAKES_WRITES_OLD = """
    SELECT 1 WHERE NOT EXISTS (
        SELECT FROM pg_proc WHERE proname = 'move_{}_fence' AND prosrc LIKE '%RAISE%'
    )
"""
TAKES_WRITES_NEW = """
    SELECT 1 FROM pg_proc WHERE proname = 'move_{}_fence' AND prosrc NOT LIKE '%RAISE%'
"""
