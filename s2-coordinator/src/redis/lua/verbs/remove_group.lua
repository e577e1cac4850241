-- remove_group <topic> <group>
local function verb()
  local topic, name = find_topic(ARGV[5]), ARGV[6]
  local listed = topic and call('HGET', P .. 'tg:' .. topic.name, name)
  if not listed then
    return { 'ok', 0 }
  end
  local text = string.match(listed, '^%d+')
  local group = find_group(tonumber(text))
  call('HDEL', P .. 'tg:' .. topic.name, name)
  call('ZREMRANGEBYRANK', P .. 'removed', 0, -10001)
  call('ZADD', P .. 'removed', now, text)
  for _, consumer in ipairs(call('ZRANGE', P .. 'w:' .. text, 0, -1)) do
    local member = group and find_member(group, tonumber(consumer))
    if member and member.wait then
      push(member.channel, { 'delivered', tonumber(consumer), member.wait[1], false })
    end
  end
  call('UNLINK', P .. 'g:' .. text, P .. 'ready:' .. text, P .. 'suspects:' .. text, P .. 'due:' .. text, P .. 'w:' .. text)
  list_waiting(topic, { incarnation = tonumber(text) })
  groups[tonumber(text)] = false
  journal {
    component = 'bus', operation = 'group_removed', subject = topic.name,
    params = {
      'group', name, 'floor', group and group.floor or 0, 'unsettled', group and
        group.in_flight + group.returning + backlog(topic, group) or 0,
    },
  }
  trim(topic)
  forget_vacant(topic)
  return { 'ok', 1 }
end
