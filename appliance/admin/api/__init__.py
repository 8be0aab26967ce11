"""The local HTTP interface, one router a resource."""
