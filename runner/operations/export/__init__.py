"""Operations: what others need to give a pipeline a home: definitions, permissions, compose, Kubernetes. All pure.

Of a URL only its virtual host is written, and variables that hold addresses and secrets by their names alone: what is
written may be committed.
"""
