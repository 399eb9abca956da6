"""Everything a person or a machine reads: terminal, HTML, Markdown, CSV, JSON and JUnit, in English and Chinese."""
