"""Cross-validation: every fold of the data held out once, by as many ordinary runs.

plan -> book (crossval.json: the same name means the same settings) -> course (runs at places) -> outcome (pooled)
"""
