"""Subcommands of `device-placement`, one file each."""
