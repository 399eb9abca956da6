"""The whole act: check the server, plan, evaluate, judge and show, with one answer at the end."""
