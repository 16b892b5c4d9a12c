"""Models that predict ratings (:class:`recsys.rating_model.RatingModel`), for ``[judge] task = "ratings"``."""
