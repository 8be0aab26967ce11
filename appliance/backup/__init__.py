"""Backup and restore of what may be restored: settings, badges and registry, never a template or its keys."""
