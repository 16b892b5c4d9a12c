"""Compare lists with the truth: the metrics, their names, and the definitions of other libraries."""
