"""The lab: tests of the agreement measures themselves,
on simulated preferences whose truth is known.
"""
