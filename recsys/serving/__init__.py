"""A server of saved models: lists, explanations and onboarding as JSON over HTTP, events and impressions in a store."""
