"""Files of other machines: cloud URIs, copies of what lies under them, and downloads of published sets."""
