"""Phonemes, speakers and pitch in the RVQ layers of neural audio codecs.

Read the modules in the order in which data flows through them:
``corpus`` → ``split`` → ``tokens`` (with ``audio``, ``pitch``, ``codecs``, ``rvq``) → ``counts`` → ``probes`` →
``measures`` → ``findings`` and ``figures`` → ``report``. ``params`` and ``store`` serve every stage; ``run`` strings the
notebooks together.
"""
