"""What the stores on SQLite and PostgreSQL have in common: domain values as rows, and statements that both understand.

- `store`: the port's implementation over an abstract `connection`, which also has what the engines say differently.
- `queries`, `statements`: what is read and written. `codec`: rows and JSON of domain values. `audit_chain`: the chain.
- Further tables have a file each: `certificates`, `rollouts`, `access`, `tokens`, ...
- Statements have `?` for values; both engines read them, so they name columns fully and compare no booleans to numbers.
"""
