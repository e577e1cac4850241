-- groups <topic>
local function verb()
  local topic, answers = known_topic(ARGV[5]), {}
  for _, listed in ipairs(topic and groups_of(topic) or {}) do
    local group = find_group(listed[1])
    if group then
      answers[#answers + 1] = {
        group.name, group.incarnation, group.floor, group.members, group.in_flight, group.returning,
        backlog(topic, group), group.expired and 1 or 0,
      }
    end
  end
  return { 'ok', answers }
end
