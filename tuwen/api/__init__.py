"""HTTP: routes by resource, errors on the wire, forms, metrics. The rooms below know nothing of it."""
