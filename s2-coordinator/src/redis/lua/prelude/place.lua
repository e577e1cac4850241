-- What the verbs of a member have in common.

-- The group, its topic and the member that a verb is about; or nil and why not.
local function find_place(incarnation, consumer, topic, name, from, to)
  local group = find_group(incarnation, consumer, from, to)
  if not group or topic and (group.topic ~= topic or group.name ~= name) then
    return nil, { call('ZSCORE', P .. 'removed', int(incarnation)) and 'removed' or 'lost' }
  end
  return group, make_topic(group.topic)
end
