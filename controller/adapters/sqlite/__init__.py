"""The store on SQLite: one writer thread, read-only readers, audit log as a hash chain.

- `store`: the port's implementation; `writer`: group commits; `reader`: queries; `schema`, `migrations`: the tables.
- `statements`, `codec`: rows and JSON of domain values. Further tables have a file each: `certificates`, `rollouts`.
- `audit_chain`: checks the chain. `restore`, `lock`, `errors`: restore of backups, the store's lock, error classes.
"""
