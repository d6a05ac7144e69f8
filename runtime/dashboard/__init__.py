"""``--dashboard``: a page that shows the line live. Needs the extra ``[dashboard]``."""
