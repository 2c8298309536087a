"""Problems and foreign baselines that the quality of search is measured on."""
