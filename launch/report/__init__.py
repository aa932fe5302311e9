"""Write a report on one or several runs: one HTML file that requires no server."""
