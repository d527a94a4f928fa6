"""Listings: filters, orders, pages and name patterns that all services share."""
