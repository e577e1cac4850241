-- The end of a step: what was changed is written, and the answer is remembered where it is asked for.

local function save()
  for _, group in pairs(groups) do
    if group then
      change(group, 'state', true)
      local fields = {}
      for field, value in pairs(group.changed) do
        local kind = string.sub(field, 1, 1)
        if field == 'state' then
          value = pack_fields(group, GROUP)
        elseif kind == 'm' then
          value = pack_fields(value, MEMBER)
        elseif kind ~= 'p' then
          value = cmsgpack.pack(value)
        end
        fields[#fields + 1], fields[#fields + 2] = field, value
        if #fields >= 1000 then
          call('HSET', group.key, unpack(fields))
          fields = {}
        end
      end
      if #fields > 0 then
        call('HSET', group.key, unpack(fields))
      end
      for field in pairs(group.removed) do
        call('HDEL', group.key, field)
      end
      if group.floor ~= group.recorded then
        call('HSET', P .. 'tg:' .. group.topic, group.name, int(group.incarnation) .. ' ' .. int(group.floor))
      end
    end
  end
  for name, topic in pairs(topics) do
    if topic then
      call('SET', P .. 't:' .. name, pack_fields(topic, TOPIC))
    end
  end
  call('HSET', P .. 'meta', 'layout', LAYOUT, 'state', cmsgpack.pack(M))
end

local caught_up = catch_up()
local lane, request = ARGV[3], tonumber(ARGV[4])
if not caught_up then
  save()
  return { 'again' }
end
if lane ~= '' then
  local packed = call('HGET', P .. 'q:' .. CALLER, lane)
  local before = packed and cmsgpack.unpack(packed)
  if before and before[1] >= request then
    save()
    return before[1] == request and before[2] or { 'superseded' }
  end
end
local answer = verb()
if lane ~= '' then
  call('HSET', P .. 'q:' .. CALLER, lane, cmsgpack.pack({ request, answer }))
end
save()
return answer
