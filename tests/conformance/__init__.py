"""Tests of the conformance suite itself: that it can fail, and that its oracles are right."""
