"""Tests of `trainers.benchmarks`."""
