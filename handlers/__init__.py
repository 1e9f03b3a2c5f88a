"""The worked examples' handlers: plain functions that know nothing of brokers."""
