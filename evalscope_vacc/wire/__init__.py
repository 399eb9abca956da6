"""HTTP: addresses, transport, dialects of servers, probing. Knows nothing of MTEB, torch or EvalScope."""
