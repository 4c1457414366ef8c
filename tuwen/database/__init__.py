"""The relational database: connections, transactions, migrations, and what its errors mean."""
