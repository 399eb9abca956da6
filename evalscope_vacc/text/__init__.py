"""Pure rules: (task, side, text) to the exact string that is sent."""
