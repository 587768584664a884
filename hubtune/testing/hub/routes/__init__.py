"""The Hub's HTTP API, one module per part of it; each offers a list named `ROUTES`."""
