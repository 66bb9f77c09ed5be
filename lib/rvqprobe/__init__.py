"""Phonemes, speakers and pitch in the RVQ layers of neural audio codecs.

Read the modules in the order in which data flows through them:
``corpus`` → ``split`` → ``encoding`` (with ``audio``, ``pitch``, ``codecs``, ``rvq``) → ``tokens`` → ``counts`` → ``probes``
(with ``solvers``) → ``measures`` → ``findings`` and ``figures`` → ``report``. ``params`` and ``store`` serve every stage; ``study`` strings the
notebooks together.
"""
