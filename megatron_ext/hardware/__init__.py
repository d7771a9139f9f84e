"""Devices, their memory, and the process groups over them."""
