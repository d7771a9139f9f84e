"""Published protocols: how a question is asked, with which examples before it."""
