"""Events in, features read, vectors written. The only importer of faust, kafka and the Feast client."""
