"""Hooks of Airflow."""
