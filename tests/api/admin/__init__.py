"""Tests of app/api/admin."""
