"""HTTP: addresses, engine, dialects of servers, probing. Knows nothing of MTEB, torch or EvalScope."""
