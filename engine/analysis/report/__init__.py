"""One HTML page of a run, of several, of a comparison or of a search, made of what lies in their folders."""
