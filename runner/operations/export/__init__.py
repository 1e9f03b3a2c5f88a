"""Files for a broker's operator and for deployment: definitions, permissions, compose, Kubernetes. All pure.

The files contain no secrets and can be committed: only the virtual host of a URL is written, and variables appear by
name, without values.
"""
