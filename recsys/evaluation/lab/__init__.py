"""The lab: studies of how well the agreement measures work, on simulated lists whose true order is
known, and on real ratings.
"""
