"""What has changed between two land-cover maps of the same ground. Read `compare.py` first."""
