"""The demo of `make demo`: it runs both packages on a real database server and checks every claim it prints."""
